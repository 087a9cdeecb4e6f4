"""The parts of `headrace decode` and `headrace quote`: recognise the input, decode or quote, render the result."""
