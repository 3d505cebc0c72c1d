"""What more than one model is made of."""
