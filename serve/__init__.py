"""The Ray Serve gateway, imported as `comagent.serve`: HTTP in front of a client, with nothing durable of its own."""
