"""Publishers' files: the adapter protocol, finding the files, reading folders and archives."""
