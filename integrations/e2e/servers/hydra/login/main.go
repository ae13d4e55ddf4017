// Login signs everybody in at Ory Hydra as one user, and agrees to what a client asks for, at once and without a page. For tests.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where to serve /login and /consent")
	admin := flag.String("admin", "http://127.0.0.1:4445", "Hydra's admin API")
	flag.Parse()
	http.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		accept(w, r, *admin, "login", func(map[string]any) any { return map[string]any{"subject": "user"} })
	})
	http.HandleFunc("GET /consent", func(w http.ResponseWriter, r *http.Request) {
		accept(w, r, *admin, "consent", func(asked map[string]any) any {
			return map[string]any{
				"grant_scope":                 asked["requested_scope"],
				"grant_access_token_audience": asked["requested_access_token_audience"],
			}
		})
	})
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}

// accept answers the challenge of this kind, and sends the browser back to Hydra.
func accept(w http.ResponseWriter, r *http.Request, admin, kind string, answer func(map[string]any) any) {
	name := kind + "_challenge"
	query := "?" + url.Values{name: {r.URL.Query().Get(name)}}.Encode()
	requests := admin + "/admin/oauth2/auth/requests/" + kind
	asked, err := call(http.MethodGet, requests+query, nil)
	if err == nil {
		asked, err = call(http.MethodPut, requests+"/accept"+query, answer(asked))
	}
	back, _ := asked["redirect_to"].(string)
	if err != nil || back == "" {
		http.Error(w, fmt.Sprint("Hydra: ", err, asked), http.StatusBadGateway)
		return
	}
	http.Redirect(w, r, back, http.StatusFound)
}

func call(method, url string, body any) (map[string]any, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, url, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var members map[string]any
	return members, json.NewDecoder(response.Body).Decode(&members)
}
