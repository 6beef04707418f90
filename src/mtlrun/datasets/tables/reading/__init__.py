"""Reading of tables: CSV and Parquet files as columns of cells, so that errors can name column, row and value."""
