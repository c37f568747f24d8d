// The precompiled LibTorch header that every folder using tensors shares.
