package ipc

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestTheLimitsBeforeTheWelcomeAreThoseOfThePythonSide(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "limits.json"))
	if err != nil {
		t.Fatal(err)
	}
	type limits struct{ Protocol, FrameBytes, FrameValues, HelloBytes, HelloNS, WritingNS uint64 }
	var got limits
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := limits{Version, MaxFrame, MaxValues, HelloFrame, uint64(HelloGrace), uint64(SendGrace)}
	if got != want {
		t.Errorf("limits.json has %+v, this side %+v", got, want)
	}
}
