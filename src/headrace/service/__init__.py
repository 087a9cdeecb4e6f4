"""Join the rooms to one service, choose what it is made of by its settings, and end it in order."""
