"""What is read from outside, given any bytes."""
