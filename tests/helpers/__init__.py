"""What tests share: servers, small models, and folders filled as stages fill them."""
