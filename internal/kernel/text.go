package kernel

// What the kernel writes into its files is cut up here, as package strings would do it.

// Fields returns the parts of s between blanks and ends of lines.
func Fields(s string) []string { return AppendFields(nil, s, len(s)) }

// AppendFields appends the first parts of s, at most so many, to fields.
func AppendFields(fields []string, s string, most int) []string {
	begin := -1
	for i := 0; i <= len(s) && most > 0; i++ {
		blank := i == len(s) || s[i] == ' ' || s[i] == '\t' || s[i] == '\n'
		switch {
		case blank && begin >= 0:
			fields, most = append(fields, s[begin:i]), most-1
			begin = -1
		case !blank && begin < 0:
			begin = i
		}
	}
	return fields
}

// Lines returns the lines of s.
func Lines(s string) (lines []string) {
	for s != "" {
		var line string
		line, s, _ = Cut(s, '\n')
		lines = append(lines, line)
	}
	return lines
}

// Cut returns what stands before and after the first sep, and whether there is one.
func Cut(s string, sep byte) (before, after string, found bool) {
	for i := range len(s) {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// CutLast does so with the last sep.
func CutLast(s string, sep byte) (before, after string, found bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// CutPrefix returns what follows a prefix, and whether s has it.
func CutPrefix(s, prefix string) (after string, found bool) {
	if len(s) < len(prefix) || s[:len(prefix)] != prefix {
		return s, false
	}
	return s[len(prefix):], true
}
