"""What happens in one step: batches, augmentation, the learner, the update, precision, ranks."""
