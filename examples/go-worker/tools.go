package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"

	types "kfm.example/go-worker/gen/kfm/type/v1"
)

// tool is what this worker performs: its promise, and the work, JSON in and out. A call ends when its context does.
type tool struct {
	description, schema string
	effect              types.EffectContract
	call                func(ctx context.Context, arguments string) (string, error)
}

var tools = map[string]tool{
	"word_count": ofText("Counts the words of a text.", types.EffectContract_EFFECT_CONTRACT_PURE, func(text string) any {
		return map[string]int{"words": len(strings.Fields(text))}
	}),
	"sha256": ofText("The SHA-256 of a text, in hex.", types.EffectContract_EFFECT_CONTRACT_IDEMPOTENT, func(text string) any {
		return map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256([]byte(text)))}
	}),
}

func ofText(description string, effect types.EffectContract, work func(text string) any) tool {
	const schema = `{"type":"object","properties":{"text":{"type":"string"}},"required":["text"],"additionalProperties":false}`
	return tool{description, schema, effect, func(_ context.Context, arguments string) (string, error) {
		var given struct{ Text string }
		if err := json.Unmarshal([]byte(arguments), &given); err != nil {
			return "", err
		}
		output, err := json.Marshal(work(given.Text))
		return string(output), err
	}}
}
