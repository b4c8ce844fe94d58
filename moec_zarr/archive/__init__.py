"""What lies in a store of this package: records, locks, status, streams; and what formats make of it."""
