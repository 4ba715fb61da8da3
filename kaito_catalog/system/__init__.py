"""The machine underneath: files written atomically, git read, programs started without tokens."""
