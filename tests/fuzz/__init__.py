"""A fuzzer: it damages every kind of file that samgan reads, and its command lines, and looks at how samgan ends."""
