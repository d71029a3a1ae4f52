"""What several suites share: real servers, and tools that leave evidence."""
