"""Speed measurements behind `headrace bench`; every figure names its input and its peers."""
