"""Data that the tasks are trained on, as files; README.md says what each is and where it is from."""
