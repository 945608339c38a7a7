"""What forwards teach: the readers of each weight, the times of steps, and how the controller is told of both."""
