"""What task losses are made of: focal loss, class weights, sample weights, boxes."""
