"""Edge sharpness: a metric for medtrust."""
