"""SQLite and PostgreSQL for every package that stores rows: connections, group commits, migrations, observed time."""
