"""How the frozen weights of any model are kept: precision, place, and the way to the device."""
