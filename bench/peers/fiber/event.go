package main

import "time"

// What a client sends: the plain JSON form of sluice.event.v1.Event (bench/peers/plain-json.ts).

type batch struct {
	BatchID string     `json:"batchId"`
	Attempt uint32     `json:"attempt,omitempty"`
	SentAt  *time.Time `json:"sentAt,omitempty"`
	Events  []event    `json:"events"`
}

type event struct {
	EventID     string             `json:"eventId"`
	Type        string             `json:"type"`
	OccurredAt  *time.Time         `json:"occurredAt,omitempty"`
	Name        string             `json:"name,omitempty"`
	UserID      string             `json:"userId,omitempty"`
	AnonymousID string             `json:"anonymousId,omitempty"`
	SessionID   string             `json:"sessionId,omitempty"`
	Device      *device            `json:"device,omitempty"`
	Touch       *touch             `json:"touch,omitempty"`
	ValueMicros int64              `json:"valueMicros,omitempty"`
	Currency    string             `json:"currency,omitempty"`
	Properties  map[string]string  `json:"properties,omitempty"`
	Metrics     map[string]float64 `json:"metrics,omitempty"`
	Page        *page              `json:"page,omitempty"`
	App         *app               `json:"app,omitempty"`
}

type device struct {
	ID               string `json:"id,omitempty"`
	Platform         string `json:"platform,omitempty"`
	OSVersion        string `json:"osVersion,omitempty"`
	Manufacturer     string `json:"manufacturer,omitempty"`
	Model            string `json:"model,omitempty"`
	Locale           string `json:"locale,omitempty"`
	Country          string `json:"country,omitempty"`
	UTCOffsetMinutes int32  `json:"utcOffsetMinutes,omitempty"`
	AdvertisingID    string `json:"advertisingId,omitempty"`
	UserAgent        string `json:"userAgent,omitempty"`
}

type touch struct {
	Channel    string `json:"channel,omitempty"`
	Source     string `json:"source,omitempty"`
	Medium     string `json:"medium,omitempty"`
	Campaign   string `json:"campaign,omitempty"`
	AdGroup    string `json:"adGroup,omitempty"`
	Creative   string `json:"creative,omitempty"`
	Keyword    string `json:"keyword,omitempty"`
	ClickID    string `json:"clickId,omitempty"`
	CostMicros int64  `json:"costMicros,omitempty"`
}

type page struct {
	URL      string `json:"url,omitempty"`
	Path     string `json:"path,omitempty"`
	Title    string `json:"title,omitempty"`
	Referrer string `json:"referrer,omitempty"`
	Status   uint32 `json:"status,omitempty"`
}

type app struct {
	ID      string `json:"id,omitempty"`
	Version string `json:"version,omitempty"`
	Build   string `json:"build,omitempty"`
	SDK     string `json:"sdk,omitempty"`
}

// What the log gets.
type stored struct {
	Tenant     string     `json:"tenant"`
	ReceivedAt time.Time  `json:"receivedAt"`
	BatchID    string     `json:"batchId"`
	Attempt    uint32     `json:"attempt,omitempty"`
	SentAt     *time.Time `json:"sentAt,omitempty"`
	Events     []event    `json:"events"`
}

type rejection struct {
	Index   int    `json:"index"`
	Field   string `json:"field"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

type position struct {
	Stream   string `json:"stream"`
	Shard    int    `json:"shard"`
	Sequence uint64 `json:"sequence"`
}

type result struct {
	BatchID    string      `json:"batchId"`
	Accepted   int         `json:"accepted"`
	Rejected   int         `json:"rejected"`
	Rejections []rejection `json:"rejections"`
	Position   *position   `json:"position,omitempty"`
}
