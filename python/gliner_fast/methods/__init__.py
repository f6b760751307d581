"""The methods of `GLiNER`, by what they are for; `model` joins them."""
