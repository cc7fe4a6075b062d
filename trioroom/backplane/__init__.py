"""How servers act as one: the contract in ``base``, one module per broker."""
