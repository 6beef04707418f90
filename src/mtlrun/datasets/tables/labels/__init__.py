"""Labels: columns of a table as the targets of tasks."""
