"""When a version is whole and genuine: the SavedModel's own records, checksums, signatures."""
