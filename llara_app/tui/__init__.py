"""The terminal app. Screens and widgets know no SQL and no torch; they ask the headless core."""
