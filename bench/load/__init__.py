"""What bench/serve.py is made of: signed requests, load generators, the server under load, the machine's limits."""
