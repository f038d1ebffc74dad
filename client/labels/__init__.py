"""The table of labels: read from CSV, XLSX or Parquet, checked by its schema, encoded.

Imported from here: cell_text, clinical_columns, csv_text, label_table, pacs_masks, schema,
    table_files, units.
May import: client.dicom, client.dicom.reading, client.site, common.
"""
