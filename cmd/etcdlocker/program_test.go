package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWithoutPath: programs are found where shells find them.
func TestWithoutPath(t *testing.T) {
	t.Setenv("PATH", "") // is restored in the end
	if path, err := lookPath("sh"); err == nil {
		t.Errorf("with an empty PATH it is %q", path)
	}
	os.Unsetenv("PATH")
	if path, err := lookPath("sh"); err != nil || path != "/bin/sh" {
		t.Errorf("%q, %v", path, err)
	}
	for _, name := range []string{"no-such-program", "./sh", ""} {
		if path, err := lookPath(name); err == nil {
			t.Errorf("%q is %q", name, path)
		}
	}
}

// TestFindCommand: what cannot be run has a hint of its kind.
func TestFindCommand(t *testing.T) {
	for _, tt := range []struct {
		command []string
		want    string
	}{
		{[]string{"no-such-program"}, "check the name"},
		{[]string{"no such program", "-v"}, "check the name"},
		{[]string{"echo hi; echo there"}, "sh -c"},
		{[]string{t.TempDir()}, "directory"},
	} {
		if path, err := (&options{command: tt.command}).findCommand(); err == nil || !strings.Contains(hintOf(err), tt.want) {
			t.Errorf("%q: %q, %v, hint %q", tt.command, path, err, hintOf(err))
		}
	}
}

// TestInterpreter: one that does not exist is named, and lines that end as on Windows are the
// reason.
func TestInterpreter(t *testing.T) {
	for script, want := range map[string]string{
		"#!/bin/sh\n":               "",
		"#! /bin/sh -e\n":           "",
		"#!/bin/sh":                 "",
		"#!\n":                      "",
		"":                          "",
		"\x7fELF":                   "",
		"echo\n":                    "",
		"#!/bin/nowhere -x\necho\n": "install it",
		"#!/bin/sh\r\nexit 0\r\n":   "CR LF",
	} {
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := checkInterpreter(file); (err == nil) != (want == "") || !strings.Contains(hintOf(err), want) {
			t.Errorf("%q: %v, hint %q", script, err, hintOf(err))
		}
	}
	if err := checkInterpreter("/no/such/file"); err != nil {
		t.Error(err)
	}
}
