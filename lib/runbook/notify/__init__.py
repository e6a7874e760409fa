"""Messages about runs to people: what is sent, and the sending."""
