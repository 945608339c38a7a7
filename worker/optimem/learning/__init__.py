"""What forwards teach: who reads which weight, how long steps take, and how a controller is told."""
