"""Language models at work on rows: engines, the request cache, conversations, phases."""
