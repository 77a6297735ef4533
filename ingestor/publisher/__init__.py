"""From received quotes to stored entries: ids, batches, the append call, retention."""
