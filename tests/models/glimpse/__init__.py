"""How the bundled vision-language model `mlxd/glimpse` is made and measured."""
