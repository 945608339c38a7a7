"""What is said to a controller, how it is framed, and one conversation from hello to bye. No torch in here."""
