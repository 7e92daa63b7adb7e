"""What a store lies on: a file system of this host, or an engine that many hosts share; and whether events are safe
there."""
