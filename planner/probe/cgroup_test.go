package probe

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// tree is a file system of short files.
func tree(files map[string]string) fs.FS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func upTo(n int64) Limit { return limitOf(uint64(n)) }

func TestHeadroomOfControlGroups(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Cgroup
	}{
		{"a system without control groups", map[string]string{}, Cgroup{}},
		{"no group of this process", map[string]string{membership: ""}, Cgroup{}},
		{"version 1 without a memory controller", map[string]string{membership: "1:cpu,cpuacct:/a\n"}, Cgroup{}},
		{"version 2, the root of a machine has no limit",
			map[string]string{membership: "0::/\n", "sys/fs/cgroup/cgroup.procs": ""},
			Cgroup{Version: 2, Path: "/"}},
		{"version 2, a container sees its own group as the root",
			map[string]string{
				membership:                 "0::/\n",
				"sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.high": "max\n", "sys/fs/cgroup/memory.current": "400\n",
				"sys/fs/cgroup/memory.stat": "anon 300\nfile 100\ninactive_file 50\nactive_file 50\n",
			},
			Cgroup{Version: 2, Path: "/", Tightest: "/", Headroom: upTo(650)}},
		{"version 2, memory.high is the lower limit",
			map[string]string{
				membership:                   "0::/a\n",
				"sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.high": "800\n", "sys/fs/cgroup/a/memory.current": "400\n",
				"sys/fs/cgroup/a/memory.stat": "inactive_file 0\n",
			},
			Cgroup{Version: 2, Path: "/a", Tightest: "/a", Headroom: upTo(400)}},
		{"version 2, an ancestor leaves less than the group itself",
			map[string]string{
				membership:                     "0::/a/b/c\n",
				"sys/fs/cgroup/a/memory.max":   "5000\n",
				"sys/fs/cgroup/a/memory.high":  "max\n",
				"sys/fs/cgroup/a/memory.stat":  "inactive_file 0\n",
				"sys/fs/cgroup/a/b/memory.max": "9000\n", "sys/fs/cgroup/a/b/memory.current": "1000\n",
				"sys/fs/cgroup/a/memory.current": "4900\n",
				"sys/fs/cgroup/a/b/c/memory.max": "max\n", "sys/fs/cgroup/a/b/c/memory.current": "10\n",
			},
			Cgroup{Version: 2, Path: "/a/b/c", Tightest: "/a", Headroom: upTo(100)}},
		{"version 2, the path of the host is not there inside a container",
			map[string]string{
				membership:                 "0::/system.slice/docker-1f.scope\n",
				"sys/fs/cgroup/memory.max": "70\n", "sys/fs/cgroup/memory.current": "20\n",
			},
			Cgroup{Version: 2, Path: "/system.slice/docker-1f.scope", Tightest: "/", Headroom: upTo(50)}},
		{"version 2, more in use than allowed leaves nothing",
			map[string]string{
				membership:                 "0::/\n",
				"sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "300\n",
			},
			Cgroup{Version: 2, Path: "/", Tightest: "/", Headroom: upTo(0)}},
		{"version 2, more file pages than use leaves the limit",
			map[string]string{
				membership:                 "0::/\n",
				"sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "20\n",
				"sys/fs/cgroup/memory.stat": "inactive_file 90\n",
			},
			Cgroup{Version: 2, Path: "/", Tightest: "/", Headroom: upTo(100)}},
		{"version 2, a path with colons and spaces",
			map[string]string{
				membership:                         "0::/a b/x:y\n",
				"sys/fs/cgroup/a b/x:y/memory.max": "7\n", "sys/fs/cgroup/a b/x:y/memory.current": "0\n",
			},
			Cgroup{Version: 2, Path: "/a b/x:y", Tightest: "/a b/x:y", Headroom: upTo(7)}},
		{"version 1, its own words",
			map[string]string{
				membership: "12:cpu,cpuacct:/x\n11:memory:/docker/1f\n1:name=systemd:/x\n",
				"sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes": "1000\n",
				"sys/fs/cgroup/memory/docker/1f/memory.usage_in_bytes": "600\n",
				"sys/fs/cgroup/memory/docker/1f/memory.stat":           "inactive_file 1\ntotal_inactive_file 100\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes":           "9223372036854771712\n",
			},
			Cgroup{Version: 1, Path: "/docker/1f", Tightest: "/docker/1f", Headroom: upTo(500)}},
		{"version 1, its largest number is no limit",
			map[string]string{
				membership: "4:memory:/\n0::/\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			},
			Cgroup{Version: 1, Path: "/"}},
		{"both versions, memory under version 1",
			map[string]string{
				membership:                 "0::/a\n5:memory:/b\n",
				"sys/fs/cgroup/memory.max": "1\n",
				"sys/fs/cgroup/memory/b/memory.limit_in_bytes": "30\n",
				"sys/fs/cgroup/memory/b/memory.usage_in_bytes": "10\n",
			},
			Cgroup{Version: 1, Path: "/b", Tightest: "/b", Headroom: upTo(20)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readCgroup(tree(c.files))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestGarbageInControlGroupsIsAnErrorThatNamesTheFile(t *testing.T) {
	good := map[string]string{
		membership: "0::/a\n", "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.current": "1\n",
		"sys/fs/cgroup/a/memory.stat": "inactive_file 0\n",
	}
	for _, c := range []struct{ name, file, text string }{
		{"a line without its three fields", membership, "0:/a\n"},
		{"a path that does not begin at the root", membership, "0::a\n"},
		{"a path outside the visible tree", membership, "0::/../b\n"},
		{"a path longer than any", membership, "0::/" + strings.Repeat("a/", longestGroup) + "\n"},
		{"bytes without meaning", membership, "\x00\xff\n"},
		{"a file longer than any", membership, strings.Repeat("0", longestFile+1)},
		{"a limit in words", "sys/fs/cgroup/a/memory.max", "much\n"},
		{"an empty limit", "sys/fs/cgroup/a/memory.high", ""},
		{"a negative limit", "sys/fs/cgroup/a/memory.max", "-1\n"},
		{"a limit too long for a number", "sys/fs/cgroup/a/memory.max", strings.Repeat("9", 30)},
		{"no use beside a limit", "sys/fs/cgroup/a/memory.current", ""},
		{"a negative number of file pages", "sys/fs/cgroup/a/memory.stat", "inactive_file -5\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{c.file: c.text}
			for name, text := range good {
				if name != c.file {
					files[name] = text
				}
			}
			_, err := readCgroup(tree(files))
			if err == nil || !strings.HasPrefix(err.Error(), "/"+c.file+":") {
				t.Errorf("got %v, want an error that begins with /%s", err, c.file)
			}
		})
	}
}

func TestALimitWithoutItsUseIsAnErrorThatKeepsItsCause(t *testing.T) {
	_, err := readCgroup(tree(map[string]string{membership: "0::/\n", "sys/fs/cgroup/memory.max": "5\n"}))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "memory.current") {
		t.Errorf("got %v, want one about memory.current", err)
	}
}

func FuzzCgroup(f *testing.F) {
	f.Add("0::/a/b\n", "max", "1", "inactive_file 0\n")
	f.Add("4:memory:/x\n0::/\n", "9223372036854771712\n", "18446744073709551615", "total_inactive_file 18446744073709551615\n")
	f.Add("0::/../..\n", "-1", "", "inactive_file")
	f.Add("0::/.././../a//\n\n", "0x10", "1e3", "inactive_file  7\n")
	f.Add("::::\n:memory:/\n", "1", "\x00", "\xff")
	f.Fuzz(func(t *testing.T, member, limit, usage, stat string) {
		files := map[string]string{membership: member}
		for _, dir := range []string{"sys/fs/cgroup/", "sys/fs/cgroup/a/", "sys/fs/cgroup/memory/"} {
			files[dir+"memory.max"], files[dir+"memory.limit_in_bytes"] = limit, limit
			files[dir+"memory.current"], files[dir+"memory.usage_in_bytes"] = usage, usage
			files[dir+"memory.stat"] = stat
		}
		c, err := readCgroup(tree(files))
		if err != nil && c != (Cgroup{}) {
			t.Errorf("%+v beside the error %v", c, err)
		}
		if h := c.Headroom; h.Bytes < 0 || !h.Limited && h.Bytes != 0 || h.Bytes >= unlimitedFrom {
			t.Errorf("headroom %+v", h)
		}
		if c.Headroom.Limited != (c.Tightest != "") {
			t.Errorf("headroom %v set by group %q", c.Headroom, c.Tightest)
		}
	})
}
