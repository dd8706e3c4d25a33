"""What an institute decides about its deployment: one file, checked before anything is made.

`settings.example.toml` shows every field. Institutes and environments differ by settings, never by edits
of the code. Each module has the settings of one stack; `file.py` puts them together.
"""
