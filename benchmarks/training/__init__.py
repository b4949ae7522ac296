"""What training costs beside other work."""
