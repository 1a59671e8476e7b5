"""Practice websites: generated worlds with readable state, gold tasks and scripted solutions."""
