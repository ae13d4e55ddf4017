// Reads a JSON string from each line, prints scheme, host and port as net/url sees them, or null.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var text string
		if err := json.Unmarshal(lines.Bytes(), &text); err != nil {
			panic(err)
		}
		var found []string
		if parsed, err := url.Parse(text); err == nil {
			found = []string{parsed.Scheme, parsed.Hostname(), parsed.Port()}
		}
		printed, err := json.Marshal(found)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(printed))
	}
}
