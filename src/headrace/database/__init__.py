"""SQLite and PostgreSQL as every room with rows uses them: connections, group commits, migrations, observed time."""
