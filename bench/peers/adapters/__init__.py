"""One module for each library, in terms of `bench.peers.adapter`."""
