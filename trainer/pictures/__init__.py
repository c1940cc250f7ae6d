"""Pictures of tensors: contact sheets, charts."""
