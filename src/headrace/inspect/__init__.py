"""What `headrace decode` shows of whatever it is given."""
