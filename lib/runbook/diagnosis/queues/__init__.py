"""R9, queues: readings of one run in, findings out."""
