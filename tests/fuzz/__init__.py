"""Inputs of readers, damaged: a few hundred each in the default suite, ten thousand each in the fault suite."""
