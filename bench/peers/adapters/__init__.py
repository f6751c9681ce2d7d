"""One module for each library, with the functions that `bench.peers.adapter` describes."""
