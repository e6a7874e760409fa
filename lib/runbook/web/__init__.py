"""The service over HTTP: alerts in, runs and reports out."""
